import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;

/** Calls the registry at the URL in the first argument with the token in the second one. */
public class Calls {
    private static final HttpClient CLIENT = HttpClient.newHttpClient();

    public static void main(String[] arguments) throws Exception {
        call(arguments, "POST", "/agents", "{\"id\": \"p\", \"endpoint\": \"http://p:1/mcp\"}");
        call(arguments, "POST", "/heartbeat", "{\"agent_id\": \"p\"}");
        call(arguments, "GET", "/agents?status=healthy", "");
        call(arguments, "HEAD", "/heartbeat/p", "");
        call(arguments, "POST", "/admin/drain", "");
        call(arguments, "DELETE", "/admin/drain", "");
        call(arguments, "DELETE", "/agents/p", "");
    }

    private static void call(String[] arguments, String method, String path, String body) throws Exception {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(arguments[0] + path));
        request.method(method, body.isEmpty() ? BodyPublishers.noBody() : BodyPublishers.ofString(body));
        if (!body.isEmpty()) {
            request.header("Content-Type", "application/json");
        }
        if (!arguments[1].isEmpty()) {
            request.header("Authorization", "Bearer " + arguments[1]);
        }
        int status = CLIENT.send(request.build(), BodyHandlers.discarding()).statusCode();
        System.out.println(method + " " + path + " " + status);
    }
}
