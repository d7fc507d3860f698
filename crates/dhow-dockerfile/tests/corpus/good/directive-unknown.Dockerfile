# foo=bar
# syntax=example.com/other:1
FROM alpine
