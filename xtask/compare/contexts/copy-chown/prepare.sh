mkdir -p tree/sub
echo file > file
echo a > tree/sub/a
chown 99:99 tree/sub/a
