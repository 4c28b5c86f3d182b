import java.util.ArrayDeque;
import java.util.HashMap;
import java.util.Map;

/**
 * A Java service whose memory behaves in one of several known ways. Prints "onset SECONDS" when a leak begins.
 *
 * <p>leak RATE [DELAY_S]: a map of sessions that nobody removes, RATE bytes a second. churn RATE: sessions that expire,
 * so that the collector has garbage to free and the heap fills up to where it collects.
 */
public final class Service {
    private static final Map<Long, byte[][]> SESSIONS = new HashMap<>();
    private static final ArrayDeque<byte[][]> RECENT = new ArrayDeque<>();

    public static void main(String[] args) throws InterruptedException {
        boolean leak = args[0].equals("leak");
        double rate = Double.parseDouble(args[1]);
        long delay = args.length > 2 ? Long.parseLong(args[2]) : 0;
        Thread.sleep(delay * 1000);
        if (leak) {
            System.out.printf("onset %.3f%n", System.currentTimeMillis() / 1000.0);
        }
        long start = System.nanoTime();
        for (long done = 0; ; Thread.sleep(50)) {
            double due = (System.nanoTime() - start) / 1e9 * rate / 2150;
            for (; done < due; done++) {
                if (leak) {
                    SESSIONS.put(done, session());
                } else {
                    RECENT.add(session());
                    if (RECENT.size() > 2000) {
                        RECENT.remove();
                    }
                }
            }
        }
    }

    /** Two kilobytes in eight pieces. */
    private static byte[][] session() {
        byte[][] parts = new byte[8][];
        for (int i = 0; i < parts.length; i++) {
            parts[i] = new byte[232];
        }
        return parts;
    }
}
