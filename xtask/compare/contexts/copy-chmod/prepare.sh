mkdir -p tree/sub
echo file > file
echo a > tree/sub/a
