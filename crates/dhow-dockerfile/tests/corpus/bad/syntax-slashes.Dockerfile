// syntax=me/toml
[stage]
