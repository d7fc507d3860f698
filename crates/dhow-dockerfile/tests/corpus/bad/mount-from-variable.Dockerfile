ARG B=a
FROM a
RUN --mount=from=$B,target=/x y
