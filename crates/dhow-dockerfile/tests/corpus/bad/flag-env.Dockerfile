FROM a
ENV --x a=b
