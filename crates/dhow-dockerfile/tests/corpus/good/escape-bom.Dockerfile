# escape=`
# syntax = docker/dockerfile-upstream:1
FROM win
RUN dir C:\
COPY a.txt C:\dir\
RUN one `
 two ``
ENV p=a` b q="c`"d"
