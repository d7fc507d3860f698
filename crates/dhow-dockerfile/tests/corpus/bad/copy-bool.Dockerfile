FROM a
COPY --parents=yes a b
