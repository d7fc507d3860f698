ARG A
ARG B= C="" D='x y' E=a\ b F=${A:-${B:-z}}
FROM alpine
ARG A B=2
ARG C=$B D=${C%x}
