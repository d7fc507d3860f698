FROM a
ENV a=1 =2
