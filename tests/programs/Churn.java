import java.util.*;
import java.util.concurrent.atomic.*;

/** Four threads fill maps and direct buffers until the input ends; says whether all of it was whole. */
public class Churn {
    static final AtomicBoolean stop = new AtomicBoolean(), whole = new AtomicBoolean(true);

    static void turn(int seed) {
        Map<Integer, String> map = new HashMap<>();
        List<java.nio.ByteBuffer> buffers = new ArrayList<>();
        for (int i = 0; i < 5000; i++) map.put(i, "v" + (seed + i));
        // Outside of the collected heap: malloc's.
        for (int i = 0; i < 20; i++) {
            java.nio.ByteBuffer buffer = java.nio.ByteBuffer.allocateDirect(20000);
            while (buffer.hasRemaining()) buffer.put((byte) (seed + i));
            buffers.add(buffer);
        }
        for (int i = 0; i < 5000; i++) if (!map.get(i).equals("v" + (seed + i))) whole.set(false);
        for (int i = 0; i < 20; i++)
            for (int at = 0; at < 20000; at++)
                if (buffers.get(i).get(at) != (byte) (seed + i)) whole.set(false);
    }

    public static void main(String[] args) throws Exception {
        List<Thread> threads = new ArrayList<>();
        var ready = new java.util.concurrent.CountDownLatch(4);
        for (int thread = 0; thread < 4; thread++) {
            int seed = thread * 1000;
            Thread worker = new Thread(() -> {
                for (int n = 0; !stop.get(); n++) {
                    turn(seed + n);
                    if (n == 0) ready.countDown();
                }
            });
            worker.start();
            threads.add(worker);
        }
        ready.await();
        System.out.println("ready");
        while (System.in.read() >= 0) {}
        stop.set(true);
        for (Thread thread : threads) thread.join();
        System.out.println(whole.get() ? "whole" : "changed");
    }
}
