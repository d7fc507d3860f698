FROM a
ENTRYPOINT ["a", {"b":1}]
