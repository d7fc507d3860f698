mkdir -p tree/sub
echo new > tree/file
echo new > tree/sub/file
