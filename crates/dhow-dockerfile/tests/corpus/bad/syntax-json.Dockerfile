{"syntax": "me/json", "a": 1}
