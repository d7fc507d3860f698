echo text | gzip -n > text.gz
: > empty.tar
echo "not a tar" > text.tar
echo x > file
