FROM a
RUN --mount=type=bind,target=/x,mode=0700 y
