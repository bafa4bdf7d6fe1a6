import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { UserError } from '../errors.ts';
import { type LayoutOptions, readLayout } from './layout.ts';
import { thrownBy } from './test-pictures.ts';

const it = suite('layout');

function read(files: string[], options: Partial<LayoutOptions> = {}, folders: string[] = []) {
  return readLayout(files, folders, { splitType: 'Random', classes: [], packed: false, ...options });
}

async function refusal(files: string[], options: Partial<LayoutOptions> = {}, folders: string[] = []) {
  const { reason, message } = (await thrownBy(() => read(files, options, folders))) as UserError;
  return { reason, message };
}

it('the folder a picture lies in is its class, however deep it lies', () => {
  const { classes, placeOf } = read(['dog/1.png', 'cat/2024/may/2.png', 'README']);
  assert.equal(classes, ['cat', 'dog']);
  assert.equal(placeOf('cat/2024/may/2.png'), { className: 'cat', split: undefined });
  assert.is(placeOf('README'), undefined);
});

it('the order of the listed classes is the order of the labels', () => {
  assert.equal(read(['cat/1.png', 'dog/1.png'], { classes: ['dog', 'cat'] }).classes, ['dog', 'cat']);
});

it('folders name the splits, validation by either name', () => {
  const files = ['train/cat/1.png', 'train/dog/1.png', 'val/cat/2.png', 'validation/dog/2.png', 'test/dog/deep/3.png'];
  const { classes, placeOf } = read([...files, 'extra/cat/4.png', 'train/5.png'], { splitType: 'Folders' });
  assert.equal(classes, ['cat', 'dog']);
  assert.equal(
    files.map((path) => placeOf(path)!.split),
    ['train', 'train', 'validation', 'validation', 'test'],
  );
  assert.is(placeOf('extra/cat/4.png'), undefined);
  assert.is(placeOf('train/5.png'), undefined);
});

it('one folder that was packed along is looked through, also with a README beside the classes', () => {
  const files = ['pictures/v1/README', 'pictures/v1/cat/1.png', 'pictures/v1/dog/1.png'];
  const { classes, placeOf } = read(files, { packed: true });
  assert.equal(classes, ['cat', 'dog']);
  assert.equal(placeOf(files[1]!), { className: 'cat', split: undefined });
  assert.is(placeOf(files[0]!), undefined);
  const bySplit = read(['pictures/train/cat/1.png', 'pictures/train/dog/1.png'], {
    packed: true,
    splitType: 'Folders',
  });
  assert.equal(bySplit.classes, ['cat', 'dog']);
  const onlyTrain = read(['train/cat/1.png', 'train/dog/1.png'], { packed: true, splitType: 'Folders' });
  assert.equal(onlyTrain.classes, ['cat', 'dog']);
});

it('names that look alike are one class', () => {
  const { classes, placeOf } = read(['caf\u00e9/1.png', 'cafe\u0301/2.png', 'bar/1.png']);
  assert.equal(classes, ['bar', 'caf\u00e9']);
  assert.is(placeOf('cafe\u0301/2.png')!.className, 'caf\u00e9');
});

it('a class may have the name of something that every object has', () => {
  assert.equal(read(['constructor/1.png', 'toString/1.png']).classes, ['constructor', 'toString']);
  assert.equal(
    read(['train/constructor/1.png', 'train/b/1.png', 'valueOf/x/1.png'], { splitType: 'Folders' }).classes,
    ['b', 'constructor'],
  );
});

it('classes that are named as splits are classes where they are listed', async () => {
  const files = ['train/1.png', 'test/1.png'];
  assert.equal(await refusal(files), {
    reason: 'SplitFoldersFound',
    message:
      'found test/, train/, which name splits and no classes: set split.type to Folders, or list them in classes',
  });
  assert.equal(read(files, { classes: ['train', 'test'] }).classes, ['train', 'test']);
});

it('says what is missing, what was found, and what is wanted', async () => {
  assert.equal(await refusal([]), {
    reason: 'NoPictures',
    message: 'the source has no files: want a folder for each class, with pictures in it',
  });
  assert.equal(await refusal(['1.png']), {
    reason: 'NoPictures',
    message: "no picture lies in a class's folder: want the source to hold a folder for each class",
  });
  assert.equal(await refusal(['cat/1.png']), {
    reason: 'OneClass',
    message: 'found the class folder cat/ alone: want at least two folders in the source, a class each',
  });
  assert.equal(await refusal(['cat/1.png', 'dog/1.png'], { splitType: 'Folders' }), {
    reason: 'NoSplitFolders',
    message: 'split.type Folders wants a folder train/ beside val/ (or validation/) and test/; found cat/, dog/',
  });
  assert.equal(await refusal(['cat/1.png', 'dog/1.png', 'cow/1.png'], { classes: ['cat', 'dog'] }), {
    reason: 'UnknownClass',
    message: 'found cow/, not listed in classes: add them there, or take the folders out',
  });
  assert.equal(await refusal(['cat/1.png', 'dog/1.png'], { classes: ['cat', 'dog', 'cow'] }), {
    reason: 'EmptyClass',
    message: 'classes: there is no folder cow/; found cat/, dog/',
  });
  assert.equal(await refusal(['cat/1.png', 'dog/1.png'], { classes: ['cat', 'dog', 'cat'] }), {
    reason: 'InvalidClass',
    message: 'classes: cat is listed twice',
  });
  assert.match((await refusal([`${'x'.repeat(254)}/1.png`, 'a/1.png'])).message, /^class folder x{60}… has a name/);
});

it('an empty folder is a class whose pictures are missing, and not no class', () => {
  assert.equal(read(['cat/1.png', 'dog/1.png'], {}, ['cow']).classes, ['cat', 'cow', 'dog']);
});

it('a folder for each picture is no class for each picture', async () => {
  const files = Array.from({ length: 10_001 }, (_, i) => `${i}/picture.png`);
  const { reason, message } = await refusal(files);
  assert.is(reason, 'TooManyClasses');
  assert.match(message, 'found 10001 class folders, more than 10000');
  assert.match(message, 'and 9996 more');
});

it.run();
