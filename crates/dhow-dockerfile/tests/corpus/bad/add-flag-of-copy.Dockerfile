FROM a
ADD --from=b a b
