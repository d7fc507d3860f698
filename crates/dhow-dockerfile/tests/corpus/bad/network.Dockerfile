FROM a
RUN --network=bridge x
