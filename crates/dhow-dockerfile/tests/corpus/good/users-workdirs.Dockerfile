FROM alpine
USER postgres
USER 1000:1000
USER ${USER:-nobody}
WORKDIR /a
WORKDIR b
WORKDIR /path with spaces
WORKDIR "$DIR/x"
