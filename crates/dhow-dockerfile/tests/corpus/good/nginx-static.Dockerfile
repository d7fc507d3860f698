FROM nginx:1.27-alpine
COPY nginx.conf /etc/nginx/conf.d/default.conf
COPY --chmod=0644 dist/ /usr/share/nginx/html/
EXPOSE 80 443/tcp
STOPSIGNAL SIGQUIT
