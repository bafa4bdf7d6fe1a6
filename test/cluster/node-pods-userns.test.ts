import { podCases } from './node-pod-cases.ts';

await podCases('userns');
