FROM alpine
RUN ["a"]
RUN ['a']
RUN [ "a", ]
RUN ["a"
COPY ["a" "b"] /x
VOLUME ['/a']
RUN [[ -f /x ]]
