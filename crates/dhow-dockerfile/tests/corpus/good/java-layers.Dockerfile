FROM eclipse-temurin:21-jre AS extract
WORKDIR /build
ARG JAR=target/*.jar
COPY ${JAR} app.jar
RUN java -Djarmode=layertools -jar app.jar extract

FROM eclipse-temurin:21-jre
COPY --from=extract /build/dependencies/ ./
COPY --from=0 /build/application/ ./
ENTRYPOINT exec java $JAVA_OPTS org.example.Main
