mkdir -p tree/dir
echo x > tree/dir/file
