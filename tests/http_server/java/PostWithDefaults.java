import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;

/** Sends registrations and a heartbeat with Java's HTTP client, whose defaults offer an upgrade to HTTP/2. */
public class PostWithDefaults {
    private static final HttpClient CLIENT = HttpClient.newHttpClient();

    public static void main(String[] arguments) throws Exception {
        String registration = "{\"id\": \"java\", \"endpoint\": \"http://java:1/mcp\"}";
        post(arguments[0] + "/agents", BodyPublishers.ofString(registration));
        // Without a length the body is sent in chunks.
        post(arguments[0] + "/agents", BodyPublishers.fromPublisher(BodyPublishers.ofString(registration)));
        post(arguments[0] + "/heartbeat", BodyPublishers.ofString("{\"agent_id\": \"java\"}"));
    }

    private static void post(String url, BodyPublisher body) throws Exception {
        HttpRequest request =
            HttpRequest.newBuilder(URI.create(url)).header("content-type", "application/json").POST(body).build();
        System.out.println(CLIENT.send(request, BodyHandlers.ofString()).statusCode());
    }
}
