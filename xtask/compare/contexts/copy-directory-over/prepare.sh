mkdir -p tree/sub
chmod 750 tree/sub
echo new > tree/sub/file
