echo one > one
echo two > two
echo space > "with space"
echo hidden > .hidden
: > empty
