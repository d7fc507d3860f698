mkdir -p tree/sub
echo file > file
echo in > tree/sub/in
