FROM a
RUN apt-get update \
    # a comment inside
    && apt-get install -y \   

      curl \
	git  \
 && true
RUN echo \\
RUN echo end \\\
LABEL a=b \
      c="d \
e"
run echo lower-case \
