import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.StringJoiner;
import org.apache.avro.AvroRuntimeException;
import org.apache.avro.Schema;
import org.apache.avro.SchemaCompatibility;
import org.apache.avro.SchemaCompatibility.Incompatibility;

/**
 * What Apache Avro says of pairs of schemas. One line in: reader, tab, writer. One line out: the places where they do
 * not go together, as `location kind` joined by `;`, nothing when they do; `!` and a reason when Avro throws.
 */
public class Judge {
  public static void main(String[] arguments) throws Exception {
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    out.println("ready");
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      String[] pair = line.split("\t");
      out.println(judge(pair[0], pair[1]).replace("\n", " "));
    }
  }

  private static String judge(String reader, String writer) {
    Schema read = new Schema.Parser().parse(reader);
    Schema written = new Schema.Parser().parse(writer);
    try {
      StringJoiner found = new StringJoiner(";");
      for (Incompatibility one : SchemaCompatibility.checkReaderWriterCompatibility(read, written).getResult()
          .getIncompatibilities()) {
        found.add(one.getLocation() + " " + one.getType());
      }
      return found.toString();
    } catch (AvroRuntimeException error) {
      return "!" + error.getMessage();
    }
  }
}
