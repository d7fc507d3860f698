FROM alpine
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENTRYPOINT top -b
ENTRYPOINT []
CMD
CMD [ "a" , "b" ]
CMD ["a\u0062", "q\"q", "\\"]
STOPSIGNAL 9
STOPSIGNAL $SIG
