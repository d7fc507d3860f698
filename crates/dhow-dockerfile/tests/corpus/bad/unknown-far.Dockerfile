FROM a
apt-get update
