FROM python:3
RUN <<EOF python3 -
import sys
# a comment of python's
print("hello \
world", sys.argv)
EOF
RUN python3 <<'PY' && echo done
print('$not_expanded')
PY
