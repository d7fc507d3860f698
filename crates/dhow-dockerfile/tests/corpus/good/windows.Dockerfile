# escape=`
FROM mcr.microsoft.com/windows/servercore:ltsc2022
SHELL ["powershell", "-Command"]
WORKDIR C:\app
COPY config\*.json C:\app\
RUN New-Item -ItemType Directory -Path C:\data ; `
    Get-ChildItem C:\app
ENV ROOT="C:\Program Files\App" X=a` b
CMD ["cmd", "/c", "ver"]
