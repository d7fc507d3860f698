FROM a
VOLUME ["", "/a"]
