arg v=1
from alpine:$v as base
run echo a
env a=b
copy . .
cmd ["a"]
