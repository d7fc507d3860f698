FROM alpine
RUN a \
CMD b
RUN ends here \
