FROM a

RUNN apt-get update
