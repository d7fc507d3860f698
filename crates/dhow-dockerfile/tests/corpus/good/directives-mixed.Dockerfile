#syntax=docker/dockerfile:1
# Check = skip=JSONArgsRecommended;error=true
#   ESCAPE   =   `
FROM alpine
RUN a `
  b
