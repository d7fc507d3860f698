FROM alpine AS a
FROM a AS b-1_x.y
FROM B-1_x.y as C
FROM alpine:3@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
FROM localhost:5000/a/b:c AS d
FROM scratch
