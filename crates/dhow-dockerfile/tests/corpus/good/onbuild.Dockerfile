FROM alpine
ONBUILD COPY . /app/src
ONBUILD ADD --chown=1 a b
ONBUILD RUN /usr/local/bin/python-build --dir /app/src
ONBUILD ENV a=b
onbuild workdir /x
ONBUILD HEALTHCHECK NONE
ONBUILD ARG X=1
