FROM alpine
ENV ONE=1
ENV TWO "two words"  kept
ENV THREE='single $q' FOUR="double $ONE \"q\"" FIVE=five\ words SIX=
ENV SEVEN=$ONE${TWO:+x}${NONE:-d} EIGHT=\$ONE
ENV NINE =x
