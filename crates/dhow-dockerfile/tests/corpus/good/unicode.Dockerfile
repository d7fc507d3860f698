FROM alpine AS unicode
ENV ŁÓDŹ=łódź EMOJI="🚢"
LABEL 名前=値
RUN echo "žluťoučký kůň"
COPY ["ü ö", "/ä/"]
