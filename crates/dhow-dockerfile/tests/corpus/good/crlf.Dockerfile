FROM a
RUN one \
  two
ENV x=1
COPY <<E /x
body
E
CMD ["a"]
