mkdir tree
echo x > tree/file
