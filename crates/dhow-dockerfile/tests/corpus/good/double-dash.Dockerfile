FROM alpine
COPY -- --file /x
COPY --link -- a b
RUN -- --not-a-flag
ADD "--quoted" /x
