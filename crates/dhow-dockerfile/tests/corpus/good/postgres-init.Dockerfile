FROM postgres:16
ENV POSTGRES_DB=app \
    POSTGRES_INITDB_ARGS="--encoding=UTF8 --locale=C"
VOLUME /var/lib/postgresql/data /backup
COPY --link --chmod=u=rwX,go=rX init/*.sql /docker-entrypoint-initdb.d/
