# syntax=example.com/frontend:1
FROM alpine
