ARG B=a
FROM a
COPY --from=${B} /x /y
