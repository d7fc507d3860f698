mkdir -p tree/sticky tree/private tree/setgid
for mode in 600 640 755 777 444 111; do echo $mode > tree/$mode; chmod $mode tree/$mode; done
echo x > tree/setuid; chmod 4755 tree/setuid
echo x > tree/setgidfile; chmod 2755 tree/setgidfile
echo x > tree/none; chmod 000 tree/none
echo x > tree/sticky/inside
chmod 1777 tree/sticky
chmod 700 tree/private
chmod 2775 tree/setgid
chown -R 1234:5678 tree/private
chmod 755 tree
