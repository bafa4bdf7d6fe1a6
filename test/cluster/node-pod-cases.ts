/** What a pod does on the process node, the same in both mount modes; run by a test file for each. */
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { eventually } from '../eventually.ts';
import { IMAGES, isReady, type KubeObject, podOf, processesWith, serving, startNodeCluster } from './node-fixture.ts';

/** A pod without what only an object of its own has. */
const template = (...args: Parameters<typeof podOf>) => ({ spec: podOf(...args).spec });
const terminated = (pod: KubeObject, container = 0) => pod.status.containerStatuses[container].state.terminated;

export async function podCases(mountMode: 'userns' | 'rewrite'): Promise<void> {
  const cluster = await startNodeCluster(mountMode);
  const { apply, until, finished, logs, remove, kubectl } = cluster;
  const it = suite(`pods in mount mode ${mountMode}`);
  it.after(async () => {
    await cluster[Symbol.asyncDispose]();
  });

  it('the node is Ready with the capacity it was told, as an unprivileged user', async () => {
    const { status, metadata } = await cluster.get('node', 'local');
    assert.ok(isReady({ status }));
    assert.is(status.capacity.cpu, '64');
    assert.is(status.capacity['example.com/widgets'], '2');
    assert.is(metadata.labels['fovea.dev/mount-mode'], mountMode);
    assert.is.not((await stat(`/proc/${cluster.node.pid}`)).uid, 0);
  });

  it('a Job passes a claim from its init container to its container and reports the exit code', async () => {
    const volumeMounts = [{ name: 'store', mountPath: '/store' }];
    await apply(
      {
        apiVersion: 'v1',
        kind: 'PersistentVolumeClaim',
        metadata: { name: 'store' },
        spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '1Gi' } } },
      },
      {
        apiVersion: 'batch/v1',
        kind: 'Job',
        metadata: { name: 'job' },
        spec: {
          backoffLimit: 0,
          template: template(
            'job',
            { args: ['cat /store/first; exit 3'], volumeMounts },
            {
              initContainers: [{ name: 'prepare', image: 'shell', args: ['echo hello > /store/first'], volumeMounts }],
              volumes: [{ name: 'store', persistentVolumeClaim: { claimName: 'store' } }],
            },
          ),
        },
      },
    );
    await until('job', 'job', ({ status }) => status.conditions?.some((c: KubeObject) => c.type === 'Failed'));
    assert.is(await logs('job/job'), 'hello\n');
    const [pod] = await cluster.list('pods', '--selector=job-name=job');
    assert.is(terminated(pod).exitCode, 3);
    assert.is(terminated(pod).reason, 'Error');
  });

  it("a deleted claim's folder and volume are removed", async () => {
    const { spec } = await cluster.get('pvc', 'store');
    const [folder] = await readdir(join(cluster.dir, 'volumes'));
    assert.ok(folder?.includes('store'));
    await remove('job', 'job');
    await remove('pvc', 'store');
    await eventually(async () => (await kubectl(['get', 'pv', spec.volumeName])).stderr.includes('NotFound'));
    assert.equal(await readdir(join(cluster.dir, 'volumes')), []);
  });

  it('init containers run in order, and the first that fails ends the pod', async () => {
    await apply(
      podOf(
        'init',
        { args: ['echo never'] },
        {
          initContainers: [
            { name: 'good', image: 'shell', args: ['true'] },
            { name: 'bad', image: 'shell', args: ['exit 5'] },
          ],
        },
      ),
    );
    const { status } = await finished('init');
    assert.is(status.phase, 'Failed');
    assert.is(status.initContainerStatuses[0].state.terminated.reason, 'Completed');
    assert.is(status.initContainerStatuses[1].state.terminated.exitCode, 5);
    assert.ok(status.containerStatuses[0].state.waiting);
  });

  it('a sidecar starts before the containers and ends after them', async () => {
    const mount = { volumeMounts: [{ name: 'shared', mountPath: '/shared' }] };
    await apply(
      podOf(
        'sidecar',
        { args: ['until test -e /shared/up; do :; done; echo main >> /shared/order; cat /shared/order'], ...mount },
        {
          initContainers: [
            {
              name: 'side',
              image: 'shell',
              restartPolicy: 'Always',
              args: [
                "trap 'echo stopped; exit 0' TERM; echo side > /shared/order; touch /shared/up; while :; do sleep 0.1; done",
              ],
              ...mount,
            },
          ],
          volumes: [{ name: 'shared', emptyDir: {} }],
        },
      ),
    );
    const { status } = await finished('sidecar');
    assert.is(status.phase, 'Succeeded');
    assert.is(await logs('sidecar', '--container=main'), 'side\nmain\n');
    assert.is(await logs('sidecar', '--container=side'), 'stopped\n');
    assert.ok(status.initContainerStatuses[0].state.terminated);
  });

  it('restart policy OnFailure runs a failed container again until it succeeds', async () => {
    const args = ['n=$(cat /d/n 2>/dev/null || echo 0); echo $((n+1)) > /d/n; echo run $n; test $n = 2'];
    await apply(
      podOf(
        'onfailure',
        { args, volumeMounts: [{ name: 'd', mountPath: '/d' }] },
        { restartPolicy: 'OnFailure', volumes: [{ name: 'd', emptyDir: {} }] },
      ),
    );
    const { status } = await finished('onfailure');
    assert.is(status.phase, 'Succeeded');
    assert.is(status.containerStatuses[0].restartCount, 2);
    assert.is(await logs('onfailure'), 'run 2\n');
    assert.is(await logs('onfailure', '--previous'), 'run 1\n');
  });

  it('restart policy Always backs off from a container that keeps ending', async () => {
    await apply(podOf('always', { args: ['exit 1'] }, { restartPolicy: 'Always' }));
    const { status } = await until(
      'pod',
      'always',
      ({ status }) => status.containerStatuses?.[0].state.waiting?.reason === 'CrashLoopBackOff',
    );
    assert.is(status.phase, 'Running');
    assert.is(status.containerStatuses[0].lastState.terminated.exitCode, 1);
    await remove('pod', 'always');
  });

  it('the termination message is what the program wrote to its path', async () => {
    await apply(
      podOf('message', { args: ['echo because > /reasons/why; exit 1'], terminationMessagePath: '/reasons/why' }),
    );
    assert.is(terminated(await finished('message')).message, 'because\n');
  });

  it('the termination message falls back to the end of the log of a container that failed', async () => {
    await apply(
      podOf('fallback', {
        args: ['echo out; echo err >&2; exit 1'],
        terminationMessagePolicy: 'FallbackToLogsOnError',
      }),
    );
    const lines = terminated(await finished('fallback')).message.split('\n');
    assert.equal(lines.sort(), ['err', 'out']);
  });

  it('a program that cannot be started is a StartError that names it', async () => {
    await apply(podOf('startless', { command: ['/no/such/program'] }));
    const state = terminated(await finished('startless'));
    assert.is(state.reason, 'StartError');
    assert.is(state.exitCode, 128);
    assert.match(state.message, '/no/such/program');
  });

  it('a container over its memory limit is OOMKilled', async () => {
    await apply(
      podOf('memory', {
        image: 'python',
        args: [
          'import time\nheld = bytearray(200 << 20)\nfor i in range(0, len(held), 4096): held[i] = 1\ntime.sleep(60)',
        ],
        resources: { limits: { memory: '100Mi' } },
      }),
    );
    const state = terminated(await finished('memory'));
    assert.is(state.reason, 'OOMKilled');
    assert.is(state.exitCode, 137);
  });

  it('a cpu limit is how many processors the program may use', async () => {
    await apply(
      podOf('cpu', {
        image: 'python',
        args: ['import os; print(len(os.sched_getaffinity(0)))'],
        resources: { limits: { cpu: '500m' } },
      }),
    );
    await finished('cpu');
    assert.is(await logs('cpu'), '1\n');
  });

  it('an image that is not known is named with those that are, and runs once it is', async () => {
    await apply(podOf('image', { image: 'later', args: ['echo here'] }));
    const { status } = await until(
      'pod',
      'image',
      ({ status }) => status.containerStatuses?.[0].state.waiting?.reason === 'ImagePullBackOff',
    );
    assert.match(status.containerStatuses[0].state.waiting.message, /"later".*python, shell/);
    await cluster.setImages({ ...IMAGES, later: IMAGES.shell });
    assert.is((await finished('image')).status.phase, 'Succeeded');
    assert.is(await logs('image'), 'here\n');
  });

  it('deletion sends SIGTERM and waits for the program within its grace period', async () => {
    await apply(
      podOf(
        'graceful',
        { args: ["trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.1; done"] },
        { terminationGracePeriodSeconds: 30 },
      ),
    );
    await until('pod', 'graceful', isReady);
    const follow = cluster.follow(['logs', '--follow', 'graceful']);
    let seen = '';
    follow.stdout!.on('data', (chunk) => (seen += chunk));
    await eventually(async () => seen.includes('up'));
    const started = performance.now();
    await remove('pod', 'graceful');
    assert.ok(performance.now() - started < 10_000, 'it was not killed at the end of its grace period');
    await eventually(
      async () => seen.includes('bye'),
      () => `its log is ${seen}`,
    );
  });

  it('at the end of the grace period every process of the pod is killed', async () => {
    const marker = `stubborn-${mountMode}-${process.pid}`;
    // One ignores SIGTERM, the other has left the session.
    await apply(
      podOf(
        'stubborn',
        {
          args: [
            `trap '' TERM; setsid sh -c 'trap "" TERM; while :; do sleep 0.1; done; : ${marker}' & echo up; while :; do sleep 0.1; done`,
          ],
        },
        { terminationGracePeriodSeconds: 1 },
      ),
    );
    await eventually(async () => (await processesWith(marker)).length >= 2);
    await remove('pod', 'stubborn');
    assert.equal(await processesWith(marker), []);
  });

  it('the preStop hook runs in the container before SIGTERM', async () => {
    await apply(
      podOf(
        'prestop',
        {
          args: ["trap 'cat /d/hook > /keep/seen; exit 0' TERM; echo up; while :; do sleep 0.1; done"],
          volumeMounts: [
            { name: 'd', mountPath: '/d' },
            { name: 'keep', mountPath: '/keep' },
          ],
          lifecycle: { preStop: { exec: { command: ['sh', '-c', 'echo hooked > /d/hook'] } } },
        },
        {
          volumes: [
            { name: 'd', emptyDir: {} },
            { name: 'keep', hostPath: { path: join(cluster.dir, 'keep'), type: 'DirectoryOrCreate' } },
          ],
        },
      ),
    );
    await until('pod', 'prestop', isReady);
    await eventually(async () => (await logs('prestop')) === 'up\n');
    await remove('pod', 'prestop');
    assert.is(await readFile(join(cluster.dir, 'keep', 'seen'), 'utf8'), 'hooked\n');
  });

  it('activeDeadlineSeconds fails the pod with DeadlineExceeded', async () => {
    await apply(
      podOf('deadline', { args: ['sleep 60'] }, { activeDeadlineSeconds: 1, terminationGracePeriodSeconds: 1 }),
    );
    const { status } = await finished('deadline');
    assert.is(status.phase, 'Failed');
    assert.is(status.reason, 'DeadlineExceeded');
  });

  it('readiness follows its probes over HTTP, TCP and exec', async () => {
    const probes: Record<string, object> = {
      http: { httpGet: { port: 'http', path: '/x' } },
      tcp: { tcpSocket: { port: 8080 } },
      exec: { exec: { command: ['sh', '-c', 'test -e /d/ready'] } },
    };
    const mount = { volumeMounts: [{ name: 'd', mountPath: '/d' }] };
    for (const [name, probe] of Object.entries(probes)) {
      await apply(
        podOf(
          `ready-${name}`,
          { ...serving('ok'), ...mount, readinessProbe: { ...(probe as object), periodSeconds: 1 } },
          { volumes: [{ name: 'd', emptyDir: {} }] },
        ),
      );
    }
    await until('pod', 'ready-http', isReady);
    await until('pod', 'ready-tcp', isReady);
    assert.not(isReady(await cluster.get('pod', 'ready-exec')));
    const make = (file: string) => kubectl(['exec', 'ready-exec', '--', 'sh', '-c', file]);
    assert.is((await make('touch /d/ready')).code, 0);
    await until('pod', 'ready-exec', isReady);
    await make('rm /d/ready');
    await until('pod', 'ready-exec', (pod) => !isReady(pod));
    await remove('pod', 'ready-http', 'ready-tcp', 'ready-exec', '--now');
  });

  it('a container whose liveness probe fails is restarted', async () => {
    await apply(
      podOf(
        'liveness',
        {
          args: ['trap "exit 9" TERM; touch /d/alive; while :; do sleep 0.1; done'],
          volumeMounts: [{ name: 'd', mountPath: '/d' }],
          startupProbe: { exec: { command: ['test', '-e', '/d/alive'] }, periodSeconds: 1 },
          livenessProbe: { exec: { command: ['test', '-e', '/d/alive'] }, periodSeconds: 1, failureThreshold: 1 },
        },
        { restartPolicy: 'Always', volumes: [{ name: 'd', emptyDir: {} }] },
      ),
    );
    await until('pod', 'liveness', isReady);
    await kubectl(['exec', 'liveness', '--', 'rm', '/d/alive']);
    const { status } = await until('pod', 'liveness', ({ status }) => status.containerStatuses[0].restartCount === 1);
    assert.is(status.containerStatuses[0].lastState.terminated.exitCode, 9);
    await remove('pod', 'liveness', '--now');
  });

  it('environment comes from values, references, ConfigMaps, Secrets and the downward API', async () => {
    await apply(
      { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'settings' }, data: { colour: 'green' } },
      { apiVersion: 'v1', kind: 'Secret', metadata: { name: 'hidden' }, stringData: { word: 'sesame' } },
      podOf(
        'environment',
        {
          image: 'python',
          args: [
            "import os\nfor v in 'PLAIN BOTH CM SECRET S_word NAME IP LABEL CPUS ABSENT'.split(): print(v + '=' + os.environ.get(v, ''))",
          ],
          env: [
            { name: 'PLAIN', value: 'a' },
            { name: 'BOTH', value: '$(PLAIN)b $$(PLAIN) $(NOPE)' },
            { name: 'CM', valueFrom: { configMapKeyRef: { name: 'settings', key: 'colour' } } },
            { name: 'SECRET', valueFrom: { secretKeyRef: { name: 'hidden', key: 'word' } } },
            { name: 'NAME', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } },
            { name: 'IP', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } },
            { name: 'LABEL', valueFrom: { fieldRef: { fieldPath: "metadata.labels['tier']" } } },
            { name: 'CPUS', valueFrom: { resourceFieldRef: { resource: 'limits.cpu' } } },
            { name: 'ABSENT', valueFrom: { configMapKeyRef: { name: 'nope', key: 'x', optional: true } } },
          ],
          envFrom: [{ prefix: 'S_', secretRef: { name: 'hidden' } }],
          resources: { limits: { cpu: '1500m' } },
        },
        {},
        { labels: { tier: 'front' } },
      ),
    );
    const { status } = await finished('environment');
    assert.is(
      await logs('environment'),
      [
        'PLAIN=a',
        'BOTH=ab $(PLAIN) $(NOPE)',
        'CM=green',
        'SECRET=sesame',
        'S_word=sesame',
        'NAME=environment',
        `IP=${status.podIP}`,
        'LABEL=front',
        'CPUS=2',
        'ABSENT=',
        '',
      ].join('\n'),
    );
    assert.match(status.podIP, /^127\.99\./);
  });

  it('a container that names what is not there waits for it', async () => {
    await apply(
      podOf('waits', {
        args: ['echo $X'],
        env: [{ name: 'X', valueFrom: { configMapKeyRef: { name: 'comes', key: 'x' } } }],
      }),
    );
    const { status } = await until(
      'pod',
      'waits',
      ({ status }) => status.containerStatuses?.[0].state.waiting?.reason === 'CreateContainerConfigError',
    );
    assert.match(status.containerStatuses[0].state.waiting.message, /"comes" not found/);
    await apply({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'comes' }, data: { x: 'came' } });
    await finished('waits');
    assert.is(await logs('waits'), 'came\n');
  });

  it('volumes show ConfigMaps, Secrets, projections and subPaths, and follow their changes', async () => {
    await apply(
      { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'files' }, data: { one: '1', two: '2' } },
      podOf(
        'volumes',
        {
          args: [
            'cat /cm/one /secret/word /all/renamed /all/labels /sub/deep/file; stat -c %a -L /secret/word; while test $(cat /cm/one) = 1; do sleep 0.1; done; echo; cat /cm/one',
          ],
          volumeMounts: [
            { name: 'cm', mountPath: '/cm' },
            { name: 'secret', mountPath: '/secret' },
            { name: 'all', mountPath: '/all' },
            { name: 'cm', mountPath: '/sub/deep/file', subPath: 'two' },
          ],
        },
        {
          volumes: [
            { name: 'cm', configMap: { name: 'files' } },
            { name: 'secret', secret: { secretName: 'hidden', defaultMode: 0o400 } },
            {
              name: 'all',
              projected: {
                sources: [
                  { configMap: { name: 'files', items: [{ key: 'one', path: 'renamed' }] } },
                  { downwardAPI: { items: [{ path: 'labels', fieldRef: { fieldPath: 'metadata.labels' } }] } },
                ],
              },
            },
          ],
        },
        { labels: { a: 'b' } },
      ),
    );
    await eventually(
      async () => (await kubectl(['logs', 'volumes'])).stdout === '1sesame1a="b"2400\n',
      () => 'the log',
    );
    await apply({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'files' }, data: { one: 'changed' } });
    await finished('volumes');
    assert.match(await logs('volumes'), /\nchanged\n$/);
  });

  it('a projected token is bound to its audience and to the pod', async () => {
    await apply(
      podOf(
        'token',
        { args: ['cat /t/token'], volumeMounts: [{ name: 't', mountPath: '/t' }] },
        {
          volumes: [
            {
              name: 't',
              projected: {
                sources: [{ serviceAccountToken: { path: 'token', audience: 'fovea', expirationSeconds: 600 } }],
              },
            },
          ],
        },
      ),
    );
    const { metadata } = await finished('token');
    const claims = JSON.parse(Buffer.from((await logs('token')).split('.')[1]!, 'base64url').toString());
    assert.equal(claims.aud, ['fovea']);
    assert.is(claims['kubernetes.io'].pod.uid, metadata.uid);
  });

  it('a pod of the restricted standard runs', async () => {
    await apply({
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: 'restricted', labels: { 'pod-security.kubernetes.io/enforce': 'restricted' } },
    });
    await until('serviceaccount', 'default', () => true);
    await eventually(
      async () => (await kubectl(['get', 'serviceaccount', 'default', '--namespace=restricted'])).code === 0,
    );
    const pod = podOf(
      'strict',
      {
        args: ['touch /tmp/x && id -u'],
        securityContext: {
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ['ALL'] },
        },
      },
      {
        securityContext: {
          runAsNonRoot: true,
          runAsUser: 1234,
          fsGroup: 1234,
          seccompProfile: { type: 'RuntimeDefault' },
        },
      },
      { namespace: 'restricted' },
    );
    await apply(pod);
    await eventually(
      async () =>
        (await kubectl(['get', 'pod', 'strict', '--namespace=restricted', '--output=jsonpath={.status.phase}']))
          .stdout === 'Succeeded',
    );
    const seen = (await kubectl(['logs', 'strict', '--namespace=restricted'])).stdout;
    if (mountMode === 'userns') assert.is(seen, '1234\n');
  });

  it('a Service reaches its ready pods by address', async () => {
    await apply(podOf('backend', serving('from the backend'), {}, { labels: { app: 'backend' } }), {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'backend' },
      spec: { selector: { app: 'backend' }, ports: [{ port: 9000, targetPort: 'http' }] },
    });
    await until('pod', 'backend', isReady);
    const fetch = (url: string) => `import os, urllib.request; print(urllib.request.urlopen(${url}).read().decode())`;
    await apply(
      podOf('client', {
        image: 'python',
        args: [fetch("'http://' + os.environ['BACKEND_SERVICE_HOST'] + ':' + os.environ['BACKEND_SERVICE_PORT']")],
      }),
    );
    await finished('client');
    assert.is(await logs('client'), 'from the backend\n');
    if (mountMode === 'userns') {
      await apply(
        podOf('names', {
          image: 'python',
          args: [
            ['backend', 'backend.default', 'backend.default.svc.cluster.local']
              .map((host) => fetch(`'http://${host}:9000'`))
              .join('\n'),
          ],
        }),
      );
      await finished('names');
      assert.is(await logs('names'), 'from the backend\n'.repeat(3));
    }
  });

  it('pods on one port do not meet: each answers on its own address', async () => {
    await apply(podOf('other', serving('from the other')));
    const { status } = await until('pod', 'other', isReady);
    const backend = await cluster.get('pod', 'backend');
    assert.is(await (await fetch(`http://${status.podIP}:8080`)).text(), 'from the other');
    assert.is(await (await fetch(`http://${backend.status.podIP}:8080`)).text(), 'from the backend');
  });

  it('kubectl port-forward reaches a pod', async () => {
    const forward = cluster.follow(['port-forward', 'pod/backend', ':8080', '--address=127.0.0.1']);
    let said = '';
    forward.stdout!.on('data', (chunk) => (said += chunk));
    await eventually(
      async () => said.includes('Forwarding'),
      () => said,
    );
    const port = /127\.0\.0\.1:(\d+)/.exec(said)![1];
    assert.is(await (await fetch(`http://127.0.0.1:${port}`)).text(), 'from the backend');
    forward.kill();
  });

  it('kubectl exec passes stdin, stdout, stderr and the exit code', async () => {
    const ran = await kubectl(['exec', '-i', 'backend', '--', 'sh', '-c', 'cat; echo err >&2; exit 7'], 'typed\n');
    assert.is(ran.stdout, 'typed\n');
    assert.match(ran.stderr, /^err\n/);
    assert.is(ran.code, 7);
  });

  it('kubectl exec with a terminal gives the program one', async () => {
    const child = cluster.follow(['exec', '-it', 'backend', '--', 'sh', '-c', 'test -t 0 && tty'], { terminal: true });
    let seen = '';
    child.stdout!.on('data', (chunk) => (seen += chunk));
    await new Promise((resolve) => child.once('close', resolve));
    assert.match(seen, /\/dev\/pts\/\d+/);
  });

  it('kubectl logs shows the tail, times, and what is written while it follows', async () => {
    await apply(
      podOf(
        'speaks',
        {
          args: ['echo 1; echo 2; echo 3; until test -e /d/go; do sleep 0.1; done; echo 4'],
          volumeMounts: [{ name: 'd', mountPath: '/d' }],
        },
        { volumes: [{ name: 'd', emptyDir: {} }] },
      ),
    );
    await until('pod', 'speaks', isReady);
    await eventually(async () => (await logs('speaks')) === '1\n2\n3\n');
    assert.is(await logs('speaks', '--tail=1'), '3\n');
    assert.match(await logs('speaks', '--timestamps', '--tail=1'), /^\d{4}-\d\d-\d\dT\S+Z 3\n$/);
    const follow = cluster.follow(['logs', '--follow', '--tail=1', 'speaks']);
    let seen = '';
    follow.stdout!.on('data', (chunk) => (seen += chunk));
    await eventually(
      async () => seen === '3\n',
      () => seen,
    );
    await kubectl(['exec', 'speaks', '--', 'touch', '/d/go']);
    await new Promise((resolve) => follow.once('close', resolve));
    assert.is(seen, '3\n4\n');
  });

  it.run();
}
